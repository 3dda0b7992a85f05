"""python -m test.fuzz TARGET [libFuzzer's options and folders]: see `make fuzz`."""

import importlib
import logging
import sys

import atheris


def main() -> None:
    name = sys.argv.pop(1)
    logging.disable()  # what is refused is logged, and refused is most
    with atheris.instrument_imports(include=["instaslice"]):
        target = importlib.import_module(f"test.fuzz.fuzz_{name}")

    # Half of the time bytes are mutated, which tests the reading; half of the time what they say.
    def custom_mutator(data: bytes, most: int, seed: int) -> bytes:
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return bytes(target.mutate(data, most, seed))

    options = {"custom_mutator": custom_mutator} if hasattr(target, "mutate") else {}
    atheris.Setup(sys.argv, target.check, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
