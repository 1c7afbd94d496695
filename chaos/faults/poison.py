"""Row 10: an event that kills each process that takes it. Its fault belongs here, declared with `@fault("10", ...)`.

A job's prompt that holds a failpoint's mark would end its worker again and again; what is to be seen is one dead
letter `crashed-worker` for it after a bounded number of deaths, and all other jobs finished.
"""
