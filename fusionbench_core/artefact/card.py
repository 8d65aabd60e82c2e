"""The model card of an artefact: README.md, in the form that model hubs read."""

from __future__ import annotations

import json

from fusionbench_core.artefact.manifest import Manifest
from fusionbench_core.records import Paper

_NOTES = {
    "module": """
This is a new architecture: other libraries would read a part of it as the old one.
""",
    "adapter": """
This is an adapter: the base is loaded from where it was. PEFT loads it, too:

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base, "PATH")
```
""",
}
"""Kind of artefact -> what its readers should know."""


def model_card(manifest: Manifest, paper: Paper | None) -> str:
    """Markdown with a YAML front matter: base models, method, parameters, citation, hash."""
    references = [manifest.base_models.get("base"), *manifest.base_models.get("models", {}).values()]
    # A stack is called by what it is made of: `a[0:8] + b[4:12]`.
    parts = [
        part.partition("[")[0] for reference in references if reference for part in reference.split(" + ")
    ]
    hub = sorted(
        {
            part.partition("@")[0]
            for part in parts
            if not part.startswith(("pkg://", "/", ".")) and part.count("/") == 1
        }
    )
    front = ["---", "tags:", "- merge", "- fusionbench"]
    if hub:
        front += ["base_model:", *(f"- {name}" for name in hub)]
    front.append("---")
    method = manifest.method
    models = "\n".join(
        f"- `{name}`: {reference}" for name, reference in manifest.base_models.get("models", {}).items()
    )
    base = manifest.base_models.get("base")
    body = f"""
# Fused with {method["name"]}

Made by FusionBench {manifest.core} with `{method["name"]}` ({method["distribution"]} {method["version"]}).

## Models

{f"Base: {base}" if base else "No base."}

{models}

## Method

```json
{json.dumps(method["parameters"], indent=2)}
```
{f"{chr(10)}{paper}{chr(10)}" if paper else ""}
## Load

```python
from fusionbench_core import load

model = load("PATH")
```
{_NOTES.get(manifest.kind, "")}
Seed {manifest.seed}. Content hash `{manifest.content_hash or "none: the members are referenced"}`.
"""
    return "\n".join(front) + "\n" + body
