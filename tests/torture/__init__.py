"""The torture of pq: producers and consumers under faults, and a check that nothing was lost.

    server    a PostgreSQL of its own, which can be crashed
    proxy     the network in front of it, which can be cut
    history   what each process notes of what it does
    actor     the processes: producers, consumers, workers
    old       the same for pq 1.9.1
    cast      starts them, and starts anew those that were killed
    nemesis   the faults
    checker   what must hold of the histories and of what is in the database
    run       all of these together

``python -m tests.torture --seconds 60 --seed 7``, from the folder of the repository.
"""
