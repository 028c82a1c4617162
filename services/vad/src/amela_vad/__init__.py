"""Voice activity as a gRPC service: TEN-VAD in a pool of processes, and on live streams."""
