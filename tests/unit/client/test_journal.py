import errno
import fcntl
import json
import os
from pathlib import Path

import pytest
from amela_client.errors import JournalError
from amela_client.journal import Failure, Journal, Outcome, RunKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

KEY = RunKey("01ef", "vad", {"words": False})


def opened(path: Path, key: RunKey = KEY) -> Journal:
    # Only explicit flushes and the close write, so that tests know what is on the disk.
    return Journal.open(path, key, interval=3600)


def record(journal: Journal, index: int, outcome: Outcome) -> None:
    if isinstance(outcome, Failure):
        journal.record_failure(index, outcome.reason, outcome.message, transient=outcome.transient)
    else:
        journal.record(index, outcome)


def recorded(journal: Journal, count: int) -> dict[int, Outcome]:
    found = {index: journal.read(index) for index in range(count)}
    return {index: outcome for index, outcome in found.items() if outcome is not None}


results = st.dictionaries(
    st.text(max_size=5),
    st.none() | st.integers() | st.text(st.characters(), max_size=20) | st.lists(st.floats(0, 1)),
)
failures = st.builds(Failure, st.sampled_from(["AUDIO_NOT_FOUND", "INTERNAL"]), st.text(), st.booleans())


def test_what_is_recorded_can_be_read_at_once_and_after_opening_again(tmp_path: Path) -> None:
    outcomes: dict[int, Outcome] = {
        5: {"text": "grüße \ud800\n", "words": [{"start": 0.5}]},
        0: {},
        3: Failure("AUDIO_NOT_FOUND", "no /a.wav", transient=False),
    }
    with opened(tmp_path / "journal") as journal:
        for index, outcome in outcomes.items():
            record(journal, index, outcome)
            assert journal.read(index) == outcome
        assert (len(journal), journal.failed, journal.resumed) == (3, 1, 0)
    with opened(tmp_path / "journal") as journal:
        assert recorded(journal, 10) == outcomes
        assert [index for index in range(-2, 10) if index in journal] == [0, 3, 5]
        assert (len(journal), journal.failed, journal.resumed) == (3, 1, 3)
        assert journal.warnings == ()


def test_a_thread_writes_what_is_recorded(tmp_path: Path) -> None:
    with Journal.open(tmp_path / "journal", KEY, interval=0.001) as journal:
        journal.record(0, {"text": "here"})
        while b"here" not in (tmp_path / "journal").read_bytes():
            pass


def test_transient_failures_are_tried_again_and_permanent_ones_stay(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as journal:
        journal.record_failure(0, "AUDIO_CORRUPT", "cut off", transient=False)
        journal.record_failure(1, "WORKER_LOST", "it died", transient=True)
        assert 1 in journal
    with opened(tmp_path / "journal") as journal:
        assert 0 in journal
        assert 1 not in journal
        assert (len(journal), journal.failed) == (1, 1)
        journal.record(1, {"text": "now it went well"})
    with opened(tmp_path / "journal") as journal:
        assert journal.read(1) == {"text": "now it went well"}


def test_recording_an_entry_twice_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as journal:
        journal.record(7, {"text": "first"})
        with pytest.raises(ValueError, match="entry 7"):
            journal.record(7, {"text": "second"})
        with pytest.raises(ValueError, match="entry 7"):
            journal.record_failure(7, "INTERNAL", "", transient=True)
        assert journal.read(7) == {"text": "first"}


def test_a_last_line_that_is_torn_at_any_byte_is_dropped_and_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    outcomes: list[Outcome] = [{"text": "ü\ud800"}, Failure("AUDIO_EMPTY", "", transient=False), {}]
    ends = []
    with opened(path) as journal:
        for index, outcome in enumerate(outcomes):
            record(journal, index, outcome)
            journal.flush()
            ends.append(path.stat().st_size)
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        survivors = sum(end <= cut for end in ends)
        with opened(path) as journal:
            assert recorded(journal, 5) == dict(enumerate(outcomes[:survivors])), cut
            assert journal.warnings == ()
            for index in range(survivors, len(outcomes)):
                record(journal, index, outcomes[index])
        assert path.read_bytes() == whole, cut


class KilledRuns(RuleBasedStateMachine):
    """Runs that record, are killed at any byte, and go on."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.safe: dict[int, Outcome] = {}
        self.recent: dict[int, Outcome] = {}
        self.path = path
        self.path.unlink(missing_ok=True)
        self.journal = opened(self.path)

    @rule(index=st.integers(0, 40), outcome=results | failures)
    def record(self, index: int, outcome: Outcome) -> None:
        if index in self.journal:
            with pytest.raises(ValueError):
                record(self.journal, index, outcome)
        else:
            record(self.journal, index, outcome)
            self.recent[index] = outcome

    @rule()
    def flush(self) -> None:
        self.journal.flush()
        self.safe |= self.recent
        self.recent = {}

    @rule(share=st.floats(0, 1))
    def kill_and_resume(self, share: float) -> None:
        before = self.path.read_bytes()
        self.journal.close()
        unwritten = self.path.read_bytes()[len(before) :]
        self.path.write_bytes(before + unwritten[: round(share * len(unwritten))])
        self.journal = opened(self.path)
        kept = recorded(self.journal, 50)
        assert kept.items() <= (self.safe | self.recent).items()
        lost = self.safe.keys() - kept.keys()
        assert all(isinstance(outcome := self.safe[index], Failure) and outcome.transient for index in lost)
        # What is lost of the last moments is lost from the end.
        gone = [index not in kept for index, outcome in self.recent.items() if not _is_transient(outcome)]
        assert gone == sorted(gone)
        self.safe, self.recent = kept, {}

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        known = self.safe | self.recent
        assert len(self.journal) == len(known)
        assert self.journal.failed == sum(isinstance(outcome, Failure) for outcome in known.values())
        assert all((index in self.journal) == (index in known) for index in range(50))

    def teardown(self) -> None:
        self.journal.close()
        lines = [json.loads(line) for line in self.path.read_bytes().splitlines()[1:]]
        final = [line["index"] for line in lines if not line.get("failure", {}).get("transient")]
        assert len(final) == len(set(final))


def _is_transient(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and outcome.transient


def test_runs_that_are_killed_at_any_time_lose_and_double_nothing(tmp_path: Path) -> None:
    run_state_machine_as_test(
        lambda: KilledRuns(tmp_path / "journal"),
        settings=settings(max_examples=25, stateful_step_count=25),
    )


@settings(max_examples=30)
@given(
    outcomes=st.lists(results | failures, max_size=6),
    damage=st.binary(min_size=1, max_size=40),
    at=st.integers(0),
)
def test_damage_costs_only_the_lines_that_it_touches(
    tmp_path_factory: pytest.TempPathFactory, outcomes: list[Outcome], damage: bytes, at: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    with opened(path) as journal:
        for index, outcome in enumerate(outcomes):
            record(journal, index, outcome)
    header, *lines = path.read_bytes().splitlines(keepends=True)
    at %= len(lines) + 1
    lines.insert(at, b"\0" + damage.replace(b"\n", b"") + b"\n")
    path.write_bytes(header + b"".join(lines))
    with opened(path) as journal:
        expected = {index: outcome for index, outcome in enumerate(outcomes) if not _is_transient(outcome)}
        assert recorded(journal, 10) == expected
        assert "1 damaged line" in journal.warnings[0]


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"7",
        b'{"index": 1}',
        b'{"index": "1", "result": {}}',
        b'{"index": -1, "result": {}}',
        b'{"index": 1, "result": []}',
        b'{"index": 1, "failure": {"reason": "X"}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_a_line_that_says_nothing_sensible_is_told_and_its_entry_done_again(
    tmp_path: Path, line: bytes
) -> None:
    path = tmp_path / "journal"
    opened(path).close()
    with path.open("ab") as file:
        file.write(line + b'\n{"index": 2, "result": {}}\n')
    with opened(path) as journal:
        assert recorded(journal, 5) == {2: {}}
        assert len(journal.warnings) == 1


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (RunKey("another", KEY.stage, KEY.options), "the manifest has changed"),
        (RunKey(KEY.manifest, "transcribe", KEY.options), "it was vad, now it is transcribe"),
        (RunKey(KEY.manifest, KEY.stage, {"words": True}), "words was false, now it is true"),
        (RunKey(KEY.manifest, KEY.stage, {"words": False, "prompt": "x"}), 'prompt was null, now it is "x"'),
    ],
)
def test_another_run_is_refused_with_what_differs_and_how_to_go_on(
    tmp_path: Path, other: RunKey, words: str
) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.record(0, {})
    with pytest.raises(JournalError) as caught:
        opened(path, other)
    assert words in str(caught.value)
    assert "delete the file" in str(caught.value)
    with opened(path) as journal:
        assert 0 in journal


def test_a_run_whose_manifest_was_moved_goes_on_and_says_from_where(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    here, there = (RunKey("01ef", "vad", folder=str(tmp_path / name)) for name in ("here", "there"))
    with opened(path, here) as journal:
        assert journal.moved_from is None
        journal.record(0, {})
    with opened(path, there) as journal:
        assert journal.moved_from == here.folder
        assert 0 in journal
    with opened(path, here) as journal:
        assert journal.moved_from is None
    # A link to the folder leads to the same recordings.
    (tmp_path / "here").mkdir()
    (tmp_path / "there").symlink_to("here")
    with opened(path, there) as journal:
        assert journal.moved_from is None


def test_a_journal_without_a_record_takes_the_folder_of_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    here, there = (RunKey("01ef", "vad", folder=str(tmp_path / name)) for name in ("here", "there"))
    opened(path, here).close()
    for expected in (None, None):
        with opened(path, there) as journal:
            assert journal.moved_from is expected
            journal.flush()
    with opened(path, there) as journal:
        journal.record(0, {})
    with opened(path, here) as journal:
        assert journal.moved_from == there.folder


def test_a_journal_that_does_not_say_the_folder_goes_on_as_before(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path, RunKey("01ef", "vad")) as journal:
        journal.record(0, {})
    with opened(path, RunKey("01ef", "vad", folder="/here")) as journal:
        assert journal.moved_from is None
        assert 0 in journal


def test_a_run_whose_results_are_in_its_manifest_is_over(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.record(0, {})
        journal.note_merged("23cd")
    # Killed before the manifest was replaced: the run goes on.
    with opened(path) as journal:
        assert (len(journal), journal.warnings) == (1, ())
        journal.record(1, {})
        journal.note_merged("45ab")
    for another in ("23cd", "67ef"):
        with pytest.raises(JournalError, match="the manifest has changed"):
            opened(path, RunKey(another, KEY.stage, KEY.options))
    with opened(path, RunKey("45ab", KEY.stage, KEY.options)) as journal:
        assert len(journal) == 0
        journal.record(0, {})
    with opened(path, RunKey("45ab", KEY.stage, KEY.options)) as journal:
        assert 0 in journal


@pytest.mark.parametrize("header", [None, '{"amela_journal": 2}\n', '{"amela_jou'])
def test_a_restart_drops_what_any_run_has_left(tmp_path: Path, header: str | None) -> None:
    path = tmp_path / "journal"
    if header is None:
        with opened(path, RunKey("another", "run")) as journal:
            journal.record(0, {"text": "old"})
    else:
        path.write_text(header)
    with Journal.open(path, KEY, restart=True) as journal:
        assert len(journal) == 0
        journal.record(0, {"text": "new"})
    with opened(path) as journal:
        assert recorded(journal, 2) == {0: {"text": "new"}}


def test_a_restart_neither_takes_the_journal_of_another_client_nor_a_file_that_is_none(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.record(0, {"text": "kept"})
        with pytest.raises(JournalError, match="another client"):
            Journal.open(path, KEY, restart=True)
    path.write_text("notes of mine\n")
    with pytest.raises(JournalError, match="is not a journal"):
        Journal.open(path, KEY, restart=True)
    assert path.read_text() == "notes of mine\n"


def test_the_same_options_in_another_order_or_as_tuples_are_the_same_run(tmp_path: Path) -> None:
    opened(tmp_path / "journal", RunKey("m", "s", {"a": (1, 2), "b": {"x": 1, "y": 2}})).close()
    opened(tmp_path / "journal", RunKey("m", "s", {"b": {"y": 2, "x": 1}, "a": [1, 2]})).close()


@pytest.mark.parametrize(
    "content",
    [
        b"notes of mine",
        b"notes of mine\n",
        b"{}\n",
        b"[1]\n",
        b"[" * 90_000 + b"\n",
        b'{"amela_journal": 1}\n',
    ],
)
def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(JournalError, match="is not a journal"):
        opened(path)
    assert path.read_bytes() == content


def test_the_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text('{"amela_journal": 2, "something": "new"}\n')
    with pytest.raises(JournalError, match="format 2"):
        opened(path)


def test_a_second_client_on_the_same_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.record(0, {"text": "kept"})
        with pytest.raises(JournalError, match="another client"):
            opened(path)
    with opened(path) as journal:
        assert journal.read(0) == {"text": "kept"}


def test_a_discarded_journal_is_gone_and_the_next_run_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.record(0, {})
        journal.discard()
        assert not path.exists()
    with opened(path, RunKey("another", "run")) as journal:
        assert len(journal) == 0


def test_a_client_that_waited_for_a_journal_never_gets_the_deleted_file(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    opened(path).close()
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        path.unlink()
        with opened(path) as journal:
            journal.record(0, {})
    with opened(path) as journal:
        assert 0 in journal


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_gets_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fake_flock_of_a_file_system_without_locks(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fake_flock_of_a_file_system_without_locks)
    with opened(tmp_path / "journal") as journal:
        journal.record(0, {})
        assert "no locks" in journal.warnings[0]


@pytest.mark.parametrize("name", ["", "no/such/folder/journal", "pipe"])
def test_a_journal_that_cannot_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(JournalError, match=r"cannot be used|not a regular file"):
        opened(tmp_path / name)


def test_a_journal_that_another_program_changed_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with opened(path) as journal:
        journal.record(0, {"text": "a"})
        journal.record(1, {"text": "b"})
        journal.flush()
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"index": 0', b'"index": 9'))
        with pytest.raises(JournalError, match="changed by another program"):
            journal.read(0)
        os.truncate(path, 10)
        with pytest.raises(JournalError, match="changed by another program"):
            journal.read(1)
