"""A bundle at work: noise, sessions, the model, and the engines that compute its rows."""
