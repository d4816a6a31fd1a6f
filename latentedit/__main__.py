"""``python -m latentedit`` is the command ``latentedit``, for where its script is not on the
path."""

from latentedit.cli.main import main

if __name__ == "__main__":
    main(prog_name="python -m latentedit")
