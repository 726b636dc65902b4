"""What a run takes over from a sibling that differs from it by nothing but the colour frames that it keeps."""
