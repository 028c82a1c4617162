"""What tasks of a job array can do with their shares, and which of its options change the results."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup

_ONE_OUTPUT = "each task writes results of its own, and `manifest merge` puts them together"
_REFUSED = {
    "in_place": ("--in-place", _ONE_OUTPUT),
    "table": ("--csv", "`manifest merge --csv` makes the table of all tasks"),
    "tasks": ("--tasks", "the manifest is shared out already"),
    "task_id": ("--task-id", "the job array says which share this is"),
}
# What only says how the work is done.
_WITHOUT_EFFECT = frozenset({
    *("restart", "mix_models", "quiet", "as_json"),
    *("server", "registry", "local", "wait", "certificate", "token", "client_certificate", "client_key"),
})  # fmt: skip


class ArrayStage(StrEnum):
    """A command that takes a share."""

    TRANSCRIBE = "transcribe"
    VAD = "vad"
    ENCODE = "encode"
    RESYNTHESIZE = "resynthesize"
    SYNTHESIZE = "synthesize"

    @property
    def service(self) -> str:
        """Which server does it: vad, asr or sts."""
        return {ArrayStage.TRANSCRIBE: "asr", ArrayStage.VAD: "vad"}.get(self, "sts")

    @property
    def makes_files(self) -> bool:
        """Whether ``--output`` is a folder of files, and the manifest's lines only list them."""
        return self in (ArrayStage.RESYNTHESIZE, ArrayStage.SYNTHESIZE)

    def command(self, context: typer.Context, share: Path, result: Path, options: Sequence[str]) -> Any:
        """Read a task's command as it would be typed, into typer's context of it.

        Raises
        ------
        typer.BadParameter
            There is no such option, or none that tasks could have.
        """
        root = context.find_root()
        assert isinstance(root.command, TyperGroup)
        command = root.command.get_command(root, self.value)
        assert command is not None
        where = "--manifest" if self.makes_files else "--output"
        typed = command.make_context(self.value, [str(share), where, str(result), *options], parent=root)
        for name, (option, why) in _REFUSED.items():
            if name in typed.params and _was_typed(typed, name):
                raise typer.BadParameter(f"leave {option} out: {why}")
        if typed.params[self._result_parameter] != result:
            raise typer.BadParameter(f"leave {where} out: {_ONE_OUTPUT}")
        return typed

    def options_of(self, typed: Any, *, model: str = "", engine: str = "") -> dict[str, object]:
        """Return what was asked for and changes results, as JSON values.

        Parameters
        ----------
        typed
            What `command` returned.
        model, engine
            What the servers are to run; empty: as they like.
        """
        own = {given.name for given in typed.command.params if isinstance(given, TyperArgument)}
        server = {name: value for name, value in (("model", model), ("engine", engine)) if value}
        return server | {
            name: str(value.absolute()) if isinstance(value, Path) else value
            for name, value in sorted(typed.params.items())
            if name not in own | _WITHOUT_EFFECT | {self._result_parameter} and _was_typed(typed, name)
        }

    @property
    def _result_parameter(self) -> str:
        return "listing" if self.makes_files else "output"


def _was_typed(typed: Any, name: str) -> bool:
    source = typed.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def invoke(typed: Any) -> None:
    """Run a command that was read."""
    with typed:
        typed.command.invoke(typed)
