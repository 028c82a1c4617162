"""``amela-client``: thin commands over the library."""

import sys
from typing import NoReturn

import typer

from amela_client.cli import manifest
from amela_client.cli.down import down_command
from amela_client.cli.encode import encode_command
from amela_client.cli.logs import logs_command
from amela_client.cli.resynthesize import resynthesize_command
from amela_client.cli.running import StoppedError
from amela_client.cli.scale import scale_command
from amela_client.cli.score import score_command
from amela_client.cli.servers import servers_command
from amela_client.cli.standard_error import StandardError, give_up_unwritten
from amela_client.cli.status import status_command
from amela_client.cli.submit import submit_command
from amela_client.cli.synthesize import synthesize_command
from amela_client.cli.task import task_command
from amela_client.cli.transcribe import transcribe_command
from amela_client.cli.up import up_command
from amela_client.cli.vad import vad_command
from amela_client.errors import ClientError

_TOUR = """Spread recordings over AMELA's servers, and collect the results.

A manifest has one recording on each line: `{"audio_filepath": "/corpus/a.wav", "duration": 3.2}`, and
whatever other fields you like. Make one, look whether it is right, and have it transcribed:

```
amela-client manifest build /corpus -o data.json
amela-client manifest validate data.json
amela-client transcribe data.json -o done.json
```

Find the speech in all recordings of a folder, or of a manifest, with the lab's table:

```
amela-client vad /corpus -o vad.json --csv vad.csv
```

Servers register in a folder, and are found there. No server yet? With `--local`, transcribe and vad start
one on this machine for as long as they run.

```
amela-client servers
amela-client transcribe data.json -o done.json --local
```

Compare transcripts with what was said, in the field `text_ref`, `transcription` or another:

```
amela-client score done.json --normalize
```

Turn speech into discrete units, units into speech, or speech into speech in another voice:

```
amela-client encode data.json -o units.jsonl --dedup
amela-client synthesize units.jsonl -o voices
amela-client resynthesize data.json -o voices --speaker ex02
```

On a cluster, servers are jobs. Start some, see how they do, have more of them, end them:

```
amela-client up asr --model canary-qwen --count 4 --time 8:00:00
amela-client status
amela-client scale asr-3f9a2c 8
amela-client logs asr-3f9a2c --follow
amela-client down asr-3f9a2c
```

Or share the work out to the tasks of a job array, each with a server of its own, and put the results together
again: all at once, or by hand.

```
amela-client submit transcribe data.json --tasks 30 -o done.json --gres gpu:1

amela-client manifest split data.json --splits 30 -o splits
sbatch --array=0-29 --gres=gpu:1 slurm/array.slurm transcribe splits
amela-client manifest tasks splits
amela-client manifest merge splits -o done.json
```

With servers that run already, tasks only need their part of the manifest:

```
amela-client transcribe data.json -o done.json --tasks 30 --task-id $SLURM_ARRAY_TASK_ID
amela-client manifest merge 'done_task_*.json' -o done.json
```

Whatever was stopped goes on where it was: give the same command again.
"""

app = typer.Typer(
    help=_TOUR,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("transcribe")(transcribe_command)
app.command("vad")(vad_command)
app.command("encode")(encode_command)
app.command("synthesize")(synthesize_command)
app.command("resynthesize")(resynthesize_command)
app.command("score")(score_command)
app.command("servers")(servers_command)
app.command("up")(up_command)
app.command("status")(status_command)
app.command("logs")(logs_command)
app.command("scale")(scale_command)
app.command("down")(down_command)
app.command("submit")(submit_command)
app.command("task")(task_command)
app.add_typer(manifest.app, name="manifest")


def main() -> NoReturn:
    """Run the command line and end the process.

    The exit code is 0 if all is done, 3 if some entries are quarantined, 2 for wrong usage and for what
    cannot work as things are set up, 128 and the signal's number after a signal (130 for Ctrl-C), and 1 for
    other errors.
    """
    try:
        app()
    except ClientError as error:
        print(f"amela-client: {error}", file=StandardError())
        sys.exit(128 + error.number if isinstance(error, StoppedError) else error.exit_code)
    finally:
        give_up_unwritten()
    sys.exit(0)
