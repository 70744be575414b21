"""Many texts: embedded into an index, searched, mined for hard negatives."""
