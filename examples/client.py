"""Ask a server what a picture shows: python client.py http://localhost:8000 photo.jpg

The picture's bytes go as they are; the server brings them to the model's size. Where there are several models,
`/v1/classify?model=NAME` names one.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

address, picture_file = sys.argv[1:]
request = urllib.request.Request(f"{address}/v1/classify", data=Path(picture_file).read_bytes(), method="POST")
try:
    with urllib.request.urlopen(request, timeout=10) as response:
        answer = json.load(response)
except urllib.error.HTTPError as error:
    sys.exit(f"error: {json.load(error)['error']}")
except OSError as error:
    sys.exit(f"error: {address}: {error}")

for entry in answer["classes"]:
    print(f"{entry['probability']:7.2%}  {entry['class']}")
print(f"in {answer['ms']['total']:.1f} ms, {answer['model']} version {answer['version']}")
