"""The torture of pq: producers and consumers under faults, and a check that nothing was lost.

    server    a PostgreSQL of its own, which can be crashed, and its standby
    proxy     the network in front of it, which can be cut
    history   what each process notes of what it does
    actor     the processes: producers, consumers, workers
    clock     runs an actor; its wall clock can jump
    old       the same for pq 1.9.1
    cast      starts them, and starts anew those that were killed
    keyed     other processes: keys, tokens and limits; `audit` and `keys` check them
    streamed  others: events of a stream; `streams` checks them
    schedule  which fault happens when
    nemesis   does them
    checker   what must hold of the histories and of what is in the database
    order     the part of it about the order of delivery
    run       all of these together
    shrink    the smallest schedule that fails

``python -m tests.torture --seconds 60 --seed 7``, from the folder of the repository.
"""
