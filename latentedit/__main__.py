"""``python -m latentedit`` is the command ``latentedit``, for where its script is not on the
path."""

from latentedit.cli.main import run

if __name__ == "__main__":
    run("python -m latentedit")
