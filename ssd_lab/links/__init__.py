"""How the engine and a draft reach each other: in one thread, two threads, a process, or on a stream."""
