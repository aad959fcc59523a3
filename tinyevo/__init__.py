"""tinyevo: evolutionary hyper-parameter optimisation of TD3 agents, small enough to read.

Nothing is re-exported here: import each name from the module that defines it, for example
`from tinyevo.td3 import TD3`. `tutorial.md` walks through the modules in order. What makes a run
safe and comfortable lives apart, in `tinyevo.app`.
"""
