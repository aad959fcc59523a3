"""Around a run: what makes it safe and comfortable. Skip it when you read about evolution.

`cli` reads flags and answers faults, `runs` keeps a run in its folder, `workers` fly members side
by side in processes or on a cluster, `report`, `plots` and `film` show what happened, `scenes`
keeps what the film needs, `trackers` record it elsewhere.
"""
