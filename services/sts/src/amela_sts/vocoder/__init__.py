"""From units to audio: the CodeHiFiGAN that fairseq and textless share, alone or in batches."""
