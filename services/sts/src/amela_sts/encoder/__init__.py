"""From audio to features: HuBERT as fairseq has it, loaded exactly, alone or in batches."""
