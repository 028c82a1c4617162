"""What every AMELA server is made of: audio in, voice activity, the server shell."""

import os

# gRPC's core reads this when it is first imported. At its default it writes a line of its own
# format for each failed handshake, which any stranger could use to fill the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
