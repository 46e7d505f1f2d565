"""The networks: blocks, U-Nets, transformers and text encoders, from a laptop's size to the papers' own."""
