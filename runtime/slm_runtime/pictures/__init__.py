"""Files that are sent as images, to pixels: in a process of its own, since whoever sends them may mean harm."""
