// What every page that classifies shares: the place where a picture is dropped or chosen, and the answer under it.

export const $ = (id) => document.getElementById(id);

export const milliseconds = (value) => `${value.toFixed(2)} ms`;

// A list of terms with what is said of each.
export function fill(list, rows) {
  list.replaceChildren(...rows.flatMap(([term, text]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = term;
    dd.textContent = text;
    return [dt, dd];
  }));
}

// Shows each picture that is dropped or chosen, and hands its file on.
export function onPicture(take) {
  const drop = $("drop");
  const show = (file) => {
    URL.revokeObjectURL($("preview").src);
    $("error").hidden = true;
    $("preview").src = URL.createObjectURL(file);
    $("preview").hidden = false;
    $("hint").hidden = true;
    take(file);
  };
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    $("file").value = ""; // or choosing the same picture again would be no change
    if (file) show(file);
  });
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) drop.addEventListener(kind, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
  });
}

// classes: {class, probability}, the likeliest first. latency: in words.
export function showAnswer(classes, latency) {
  $("classes").replaceChildren(...classes.map(row));
  $("latency").textContent = latency;
}

export function showError(error) {
  showAnswer([], "");
  $("error").textContent = error.message;
  $("error").hidden = false;
}

function row({ class: name, probability }) {
  const [item, label, meter, value] = ["li", "span", "meter", "output"].map((tag) => document.createElement(tag));
  label.textContent = name;
  meter.value = probability;
  value.textContent = `${(100 * probability).toFixed(1)} %`;
  item.append(label, meter, value);
  return item;
}
