"""What versions exist and whether one is fit to serve, measured beside the champion that serves now."""
