"""What the cluster says of pods and objects, read into a few words. Pure."""
