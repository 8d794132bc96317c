"""Stage 2 without maps: clusters of latents, and the head that draws discrete values and one."""
