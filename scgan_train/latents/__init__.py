"""Stage 2 without its maps: the clusters of latents and the head that draws discrete values and one of them."""
