"""C code for what no library does as fast on a processor: built once a machine, where there is a compiler."""
