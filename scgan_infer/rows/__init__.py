"""The one door: rows come in from files and arrays, and go out to files; `formats` lists both."""
