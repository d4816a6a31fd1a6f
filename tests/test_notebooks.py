"""The notebooks run from top to bottom, with few steps."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"
SHORTER = {
    "invert_and_edit": ("STEPS = 100", "STEPS = 2"),
    "find_a_direction": ("SAMPLES = 600", "SAMPLES = 40"),
}
"""What is replaced in a notebook so that it takes seconds."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of jupyter's own packages
@pytest.mark.parametrize("name", SHORTER)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "jupyter"))
    text = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    usual, short = SHORTER[name]
    assert text.count(usual) == 1
    notebook = nbformat.reads(text.replace(usual, short), as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any(output.output_type == "stream" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert list(tmp_path.glob("*.safetensors"))


def test_every_notebook_is_run_and_kept_without_outputs() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHORTER)
    for name in SHORTER:
        notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        assert all(
            not cell.outputs and cell.execution_count is None
            for cell in notebook.cells
            if cell.cell_type == "code"
        )
