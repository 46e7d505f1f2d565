"""The process: noise schedules, the one abstraction of a denoiser, and what samples, guides and measures with it."""
