"""python -m test.fuzz TARGET [libFuzzer's options and folders]: see `make fuzz`."""

import importlib
import logging
import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    logging.disable()  # most inputs are refused, and each refusal is logged
    with atheris.instrument_imports(include=["instaslice"]):
        target = importlib.import_module(f"test.fuzz.fuzz_{name}")

    # Half of the mutations change bytes, which tests the parser; the others change the content.
    def custom_mutator(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return bytes(target.mutate(data, most, seed))

    options = {"custom_mutator": custom_mutator} if hasattr(target, "mutate") else {}
    atheris.Setup(sys.argv, target.check, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
