"""Builds the stubs from the .proto files: generated code is never committed."""

from pathlib import Path

from grpc_tools import protoc
from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class GenerateStubs(build_py):
    """Writes messages, services and their types where the package is built."""

    def run(self) -> None:
        super().run()
        out = ROOT if self.editable_mode else Path(self.build_lib).resolve()
        out.mkdir(parents=True, exist_ok=True)
        includes = [str(ROOT), str(Path(protoc.__file__).parent / "_proto")]
        sources = sorted(path.relative_to(ROOT) for path in ROOT.glob("amela/*/v1/*.proto"))
        arguments = [f"-I{include}" for include in includes]
        arguments += [f"--{kind}_out={out}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
        if protoc.main(["protoc", *arguments, *map(str, sources)]) != 0:
            raise SystemExit("protoc could not compile the contract: see its message above")
        for source in sources:
            for folder in source.parents[:-1]:
                (out / folder / "__init__.py").touch()
        (out / "amela" / "py.typed").touch()

    def get_source_files(self) -> list[str]:
        return [str(path.relative_to(ROOT)) for path in ROOT.glob("amela/*/v1/*.proto")]


setup(cmdclass={"build_py": GenerateStubs})
