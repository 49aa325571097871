"""Write the manifest's JSON Schema beside the site's other static files: python docs/_schema.py."""

import json
from pathlib import Path

from skte.bank import manifest_schema

FILE = Path(__file__).parent / "_static" / "bank.schema.json"

if __name__ == "__main__":
    FILE.write_text(json.dumps(manifest_schema(), indent=1) + "\n", "utf-8")
