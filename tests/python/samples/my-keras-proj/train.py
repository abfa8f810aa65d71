"""What the sample with MPI and an image would run; it is refused before."""

raise SystemExit('this target has no images')
