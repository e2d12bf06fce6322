"""fewstep inside other people's software; each part imports its third party only in itself."""
