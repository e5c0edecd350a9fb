"""`python -m docs.tools` writes the documents that follow from the code."""

from __future__ import annotations

from docs.tools.made import ROOT, made


def main() -> None:
    for name, text in made().items():
        (ROOT / name).write_text(text)


if __name__ == "__main__":
    main()
