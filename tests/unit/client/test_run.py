"""Runs that need no server: what is left to do, what is written, what is kept."""

import json
from pathlib import Path
from typing import Any

import pytest
from amela_client.client import AmelaClient
from amela_client.errors import JournalError, ManifestError, MergeError, NoServersError
from amela_client.journal import Journal, RunKey
from amela_client.manifest import Manifest
from amela_client.run import RunSummary, journal_path, run_manifest
from amela_client.stages import Transcription

DONE = {"text": "he was", "asr_model": {"engine": "e", "name": "n", "fingerprint": "0123456789abcdef"}}


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def audio(name: str, **fields: object) -> dict[str, object]:
    return {"audio_filepath": f"/{name}.wav", **fields}


async def run(manifest: Path, output: Path, **options: Any) -> RunSummary:
    """Run where no server is: whoever calls one fails at once."""
    stage = options.pop("stage", Transcription())
    async with AmelaClient(manifest.parent / "registry", wait=0) as client:
        return await run_manifest(client, stage, Manifest(manifest), output, **options)


def journal_of(manifest: Path, output: Path, stage: Transcription = Transcription()) -> Journal:  # noqa: B008
    key = RunKey(Manifest(manifest).digest, stage.name, stage.options, str(manifest.parent))
    return Journal.open(journal_path(output), key)


async def test_entries_that_have_a_text_come_out_as_they_were_without_any_server(tmp_path: Path) -> None:
    lines = ['{"audio_filepath":"/a.wav" , "text":"x", "n":1e3}', json.dumps(audio("b", text="y"))]
    manifest = write(tmp_path / "data.json", *lines)
    summary = await run(manifest, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text().splitlines() == lines
    assert (summary.results, summary.skipped, summary.quarantined) == (0, 2, {})
    assert names(tmp_path) == ["data.json", "out.json"]


async def test_faults_are_quarantined_by_reason_without_any_server(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a", text="x"), "{", "[1]", "{")
    summary = await run(manifest, tmp_path / "out.json")
    assert summary.quarantined == {"BAD_JSON": 2, "NOT_AN_OBJECT": 1}
    assert list(summary.quarantined) == ["BAD_JSON", "NOT_AN_OBJECT"]
    assert summary.errors == tmp_path / "out.errors.jsonl"
    assert [line["line"] for line in read(tmp_path / "out.errors.jsonl")] == [2, 3, 4]
    assert summary.passing == 0


async def test_without_a_server_the_run_fails_and_leaves_nothing_behind(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"))
    with pytest.raises(NoServersError, match="registry, which does not exist"):
        await run(manifest, tmp_path / "out.json")
    assert names(tmp_path) == ["data.json"]


async def test_a_run_whose_journal_is_complete_is_only_written_out(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"), audio("b"), "{")
    output = tmp_path / "out.json"
    with journal_of(manifest, output) as journal:
        journal.record(1, DONE)
        journal.record_failure(0, "AUDIO_NOT_FOUND", "no /a.wav", transient=False)
    summary = await run(manifest, output)
    assert read(output) == [audio("b") | DONE]
    assert (summary.results, summary.resumed) == (1, 2)
    assert summary.quarantined == {"AUDIO_NOT_FOUND": 1, "BAD_JSON": 1}
    assert not journal_path(output).exists()


async def test_what_a_stopped_run_has_done_outlives_a_run_without_servers(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"), audio("b"))
    output = tmp_path / "out.json"
    with journal_of(manifest, output) as journal:
        journal.record(1, DONE)
    with pytest.raises(NoServersError):
        await run(manifest, output)
    assert not output.exists()
    with journal_of(manifest, output) as journal:
        assert journal.read(1) == DONE


async def test_restart_drops_what_a_stopped_run_has_done(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"))
    output = tmp_path / "out.json"
    with journal_of(manifest, output) as journal:
        journal.record(0, DONE)
    with pytest.raises(NoServersError):
        await run(manifest, output, restart=True)
    assert not journal_path(output).exists()


async def test_other_options_do_not_continue_a_run(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"))
    output = tmp_path / "out.json"
    with journal_of(manifest, output) as journal:
        journal.record(0, DONE)
    with pytest.raises(JournalError, match="words was false, now it is true"):
        await run(manifest, output, stage=Transcription(words=True))
    assert journal_path(output).exists()


async def test_a_run_does_not_go_on_with_the_recordings_of_another_folder(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    lines = [audio("a"), {"audio_filepath": "b.wav"}]
    here, there = (write(tmp_path / name, *lines) for name in ("here.json", "there.json"))
    (tmp_path / "elsewhere").mkdir()
    there = there.rename(tmp_path / "elsewhere" / "there.json")
    with journal_of(here, output) as journal:
        journal.record(0, DONE)
        journal.record(1, DONE)
    with pytest.raises(JournalError, match=r"line 2, lead to other recordings.*another output.*--restart"):
        await run(there, output)
    assert not output.exists()
    with pytest.raises(NoServersError):
        await run(there, output, restart=True)
    with journal_of(here, output) as journal:
        assert len(journal) == 0


async def test_a_manifest_of_absolute_paths_may_be_moved_during_a_run(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"))
    output = tmp_path / "out.json"
    with journal_of(manifest, output) as journal:
        journal.record(0, DONE)
    (tmp_path / "elsewhere").mkdir()
    summary = await run(manifest.rename(tmp_path / "elsewhere" / "data.json"), output)
    assert (summary.results, summary.resumed) == (1, 1)


async def test_a_journal_in_use_by_another_client_is_left_to_it(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a", text="x"))
    output = tmp_path / "out.json"
    with journal_of(manifest, output), pytest.raises(JournalError, match="another client"):
        await run(manifest, output)


async def test_the_manifest_is_never_the_output_unless_asked_for(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a", text="x"))
    (tmp_path / "link.json").symlink_to(manifest)
    for output in (manifest, tmp_path / "link.json"):
        with pytest.raises(MergeError, match="--in-place"):
            await run(manifest, output)
    assert read(manifest) == [audio("a", text="x")]


async def test_in_place_keeps_every_line_and_leaves_no_journal(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"), "{not json", audio("b"))
    with journal_of(manifest, manifest) as journal:
        journal.record(0, DONE)
        journal.record_failure(2, "AUDIO_EMPTY", "no samples", transient=False)
    summary = await run(manifest, manifest, in_place=True)
    first, *others = manifest.read_text().splitlines()
    assert json.loads(first) == audio("a") | DONE
    assert others == ["{not json", json.dumps(audio("b"))]
    assert summary.quarantined == {"BAD_JSON": 1, "AUDIO_EMPTY": 1}
    assert not journal_path(manifest).exists()


async def test_an_output_that_cannot_be_written_is_found_before_any_call(tmp_path: Path) -> None:
    manifest = write(tmp_path / "data.json", audio("a"))
    with pytest.raises(MergeError, match="there is no folder"):
        await run(manifest, tmp_path / "missing" / "out.json")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MergeError, match="not a regular file"):
        await run(manifest, tmp_path / "folder")
    (tmp_path / "out.json.journal").mkdir()
    with pytest.raises(JournalError):
        await run(manifest, tmp_path / "out.json", restart=True)


async def test_a_manifest_that_changes_during_the_run_is_not_overwritten(tmp_path: Path) -> None:
    path = write(tmp_path / "data.json", audio("a", text="x"))
    manifest = Manifest(path)
    assert len(list(manifest)) == 1
    write(path, audio("a", text="x"), audio("new"))
    async with AmelaClient(tmp_path / "registry", wait=0) as client:
        with pytest.raises(ManifestError, match="changed"):
            await run_manifest(client, Transcription(), manifest, path, in_place=True)
    assert read(path) == [audio("a", text="x"), audio("new")]


async def test_relative_paths_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = write(tmp_path / "data.json", {"audio_filepath": "a.wav", "text": "x"})
    await run(manifest, tmp_path / "out.json")
    assert f"relative paths are taken against the manifest's folder, {tmp_path}" in caplog.text
