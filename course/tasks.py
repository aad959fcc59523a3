"""The tasks of the course, as data: what to do, how long it takes, what it is worth, what decides.

A lecturer changes the course here. The handout, its score, its table of tasks, the graders and the
tests of all of them read this table.
"""

from dataclasses import dataclass

REFILL, PREDICT, DERIVE, HUNT = "refill", "predict", "derive", "hunt"  # graded by tests
PLOT, EXPLAIN, PROJECT = "plot", "explain", "project"  # graded by the lecturer


@dataclass(frozen=True)
class Task:
    """One task.

    `minutes` are planned, not measured. `tests` decide it: test functions of the repository for a
    body to refill, keys of `questions.py` for an answer. `module` is what it is about. A refill
    takes out the body of `name` in it; with `parts` only its statements that begin so. `after` are
    all the tasks without which its tests cannot pass, or it cannot be done.
    """

    number: int
    kind: str
    title: str
    minutes: int
    points: int
    hint: str
    tests: tuple = ()
    module: str = ""
    name: str = ""
    parts: tuple = ()
    after: tuple = ()
    text: str = ""

    @property
    def marker(self):
        """Its name for `pytest -m`."""
        return f"task{self.number}"

    @property
    def message(self):
        """What stands in the place of a body."""
        return f'raise NotImplementedError("task {self.number}: {self.title}")'

    @property
    def graded(self):
        """Whether tests give its points."""
        return self.kind in (REFILL, PREDICT, DERIVE, HUNT)


def _all(file, *names):
    """The ids of some tests in a file."""
    return tuple(f"tests/{file}.py::test_{name}" for name in names)


BODIES = tuple(range(1, 12))  # the numbers of all bodies
TASKS = (
    Task(
        1,
        REFILL,
        "a batch is drawn from the memory",
        minutes=20,
        points=3,
        hint="One indexing of the storage with random row numbers gives all fields at once. Which "
        "rows hold transitions before the ring is full? Let the words of the ValueError say that "
        "the memory is empty.",
        module="tinyevo/buffer.py",
        name="ReplayBuffer.sample",
        tests=_all(
            "test_buffer",
            "a_sample_holds_whole_transitions_with_unchanged_values",
            "a_sample_is_batch_first_and_of_the_types_that_learning_needs",
            "every_stored_transition_is_drawn_equally_often_and_no_other",
            "a_transition_may_be_drawn_twice_even_if_there_are_others_left",
            "samples_lie_on_the_device_of_the_memory",
            "the_same_generator_draws_the_same_sample",
            "changing_a_sample_or_what_was_added_does_not_change_the_memory",
            "an_empty_memory_says_so",
        ),
    ),
    Task(
        2,
        REFILL,
        "the observation an action really led to",
        minutes=20,
        points=3,
        hint="Print infos of an environment whose episodes last three steps. The mask says in "
        "which environments there is something to put right; copy before you do, because the "
        "caller goes on from next_obs.",
        module="tinyevo/environment.py",
        name="successors",
        tests=_all(
            "test_environment",
            "the_successor_of_a_finished_step_is_its_own_last_observation",
            "final_observations_without_their_mask_are_an_error",
            "the_environments_start_the_next_episode_in_the_same_step",
        ),
    ),
    Task(
        3,
        REFILL,
        "one step of the Ornstein-Uhlenbeck walk",
        minutes=20,
        points=3,
        hint="The class's docstring has the formula. The caller keeps what you return: what "
        "happens to it in the next step?",
        module="tinyevo/noise.py",
        name="OrnsteinUhlenbeckNoise.sample",
        tests=_all(
            "test_noise",
            "a_sample_has_a_row_for_each_environment_and_follows_from_the_generator",
            "environments_and_dimensions_are_independent",
            "the_walk_settles_at_the_deviation_and_correlation_that_theory_gives",
            "one_step_of_the_walk_worked_by_hand",
            "the_walk_begins_at_its_mean_and_returns_there_where_an_episode_ended",
            "a_sample_stays_as_it_was_when_the_walk_goes_on",
            "whoever_changes_a_sample_does_not_change_the_noise",
        ),
    ),
    Task(
        4,
        REFILL,
        "the winner of a tournament",
        minutes=20,
        points=3,
        hint="Rivals are distinct: rng.choice can draw without replacement. A tournament may be "
        "larger than the population.",
        module="tinyevo/tournament.py",
        name="TournamentSelection._winner",
        tests=_all(
            "test_tournament",
            "the_best_parents_everybody_if_all_take_part_in_each_tournament",
            "a_tournament_larger_than_the_population_is_one_of_all",
            "tournaments_of_one_are_pure_chance",
            "the_worked_example_of_two_rivals_among_two",
            "the_last_fitness_counts",
            "a_great_past_helps_neither_the_elite_nor_a_parent",
            "a_fitness_that_is_not_finite_never_wins",
            "the_same_generator_selects_the_same",
            "members_can_be_judged_by_the_mean_of_several_fitnesses",
        ),
    ),
    Task(
        5,
        REFILL,
        "a hyper-parameter moves",
        minutes=30,
        points=4,
        hint="Compute both moves with _moved, and drop those that lead nowhere: at a bound one of "
        "them does. Floats that differ in the last digit are equal here (math.isclose).",
        module="tinyevo/mutation.py",
        name="RLParameter.mutate",
        tests=_all(
            "test_mutation",
            "a_number_moves_by_one_of_the_two_factors_equally_often",
            "the_factors_are_the_ones_given",
            "a_number_stays_in_its_bounds_keeps_its_type_and_always_moves",
            "a_learn_step_of_one_reaches_sixteen_and_comes_back",
            "integers_are_rounded_and_move_by_one_at_least",
            "without_selection_a_number_does_not_drift_to_a_bound",
            "at_a_bound_a_number_goes_the_other_way_and_near_it_is_clipped",
            "rounding_errors_are_no_moves",
        ),
    ),
    Task(
        6,
        REFILL,
        "the target of the critics",
        minutes=40,
        points=5,
        hint="Call the target critics, not the live ones; both values come in one call. "
        "terminated is 0.0 or 1.0 here. What scales the reward?",
        module="tinyevo/td3.py",
        name="TD3.learn",
        parts=("q1, q2 = self.targets", "future = ", "target = "),
        tests=_all(
            "test_td3",
            "the_target_worked_by_hand",
            "nothing_follows_a_termination",
            "each_row_of_a_batch_has_its_own_smaller_critic_and_its_own_termination",
            "the_target_is_in_the_unit_of_the_scaled_reward",
            "the_target_uses_the_target_networks_at_the_next_observation",
            "the_discount_is_for_one_environment_step_however_seldom_there_is_an_update",
            "the_smoothed_action_stays_in_the_box",
        ),
    ),
    Task(
        7,
        REFILL,
        "the loss of the policy",
        minutes=40,
        points=4,
        hint="The policy acts on obs, a critic says what that is worth, and the optimiser goes "
        "downhill. _policy and _descend are there to be used; first_only saves half the work.",
        module="tinyevo/td3.py",
        name="TD3.learn",
        parts=("q1 = critic(", 'losses["actor"] = ', 'self._descend("actor"'),
        after=(6,),
        tests=_all(
            "test_td3",
            "the_policy_goes_uphill_on_the_first_critic_alone",
            "the_loss_of_the_policy_is_the_mean_over_the_batch",
            "the_critics_move_every_update_and_actor_and_targets_every_policy_freq_updates",
            "both_critics_learn_at_the_critic_rate_and_the_actor_at_its_own",
            "the_policy_finds_the_best_action_of_a_bandit",
        ),
    ),
    Task(
        8,
        REFILL,
        "an agent is copied",
        minutes=15,
        points=2,
        hint="vars(agent) is the dict of all its attributes, and the module imports copy. What "
        "would a copy attribute by attribute do to an optimiser that holds the network's weights? "
        "And why not copy.copy or copy.deepcopy of self? They ask `__reduce__`, which is for other "
        "processes: it would write the agent into bytes and forget what is not in state().",
        module="tinyevo/td3.py",
        name="TD3.clone",
        after=(6, 7),
        tests=_all(
            "test_td3",
            "a_clone_is_equal_in_everything_and_shares_nothing",
            "the_next_updates_of_a_clone_equal_its_parents",
            "a_clone_of_a_subclass_is_one",
            "a_clone_keeps_what_an_exercise_hangs_on_an_agent_and_shares_none_of_it",
            "the_optimisers_of_a_clone_follow_its_own_parameters",
            "a_clone_is_copied_and_only_what_goes_to_another_process_becomes_bytes",
        ),
    ),
    Task(
        9,
        REFILL,
        "a layer grows and forgets nothing",
        minutes=60,
        points=5,
        hint="Three tensors change: the layer's weights and biases get columns, the next layer's "
        "weights get rows. Draw on paper which axis is which (the last one is that of the units, "
        "the second that of the inputs). add_nodes calls it; draw_layer says how wide fresh "
        "weights are spread, remove_units shows the way back.",
        module="tinyevo/networks.py",
        name="add_units",
        tests=_all(
            "test_networks",
            "added_nodes_do_not_change_the_function",
            "added_nodes_keep_the_old_weights_and_have_random_inputs_and_zero_outputs",
            "many_added_nodes_have_the_spread_of_fresh_ones",
            "an_added_unit_with_a_kernel_has_the_spread_of_all_that_it_reads",
            "the_worked_example_of_growing_a_layer_of_two_nodes",
            "added_nodes_take_part_after_one_update",
            "the_weights_of_added_nodes_are_up_to_the_generator",
            "a_node_that_was_just_added_can_be_removed_without_a_trace",
        ),
    ),
    Task(
        10,
        REFILL,
        "steps pay for updates",
        minutes=30,
        points=4,
        hint="The credit above grows with every step; an update costs learn_step of it. There may "
        "be several updates in a step of the environments, or none.",
        module="tinyevo/train.py",
        name="train_member",
        parts=("while credit",),
        after=(1, 2, 3),
        tests=_all(
            "test_train",
            "there_is_one_update_for_every_learn_step_steps",
            "each_update_has_a_batch_of_its_own_and_the_noise_of_the_slice",
        ),
    ),
    Task(
        11,
        REFILL,
        "episodes fly side by side",
        minutes=90,
        points=6,
        hint="Keep the last observation of each running episode in a dict by its index. An episode "
        "that has ended leaves it; the agent is asked about all that are left, in one batch.",
        module="tinyevo/evaluate.py",
        name="rollout",
        tests=_all(
            "test_evaluate",
            "each_episode_counts_once_however_short",
            "an_agent_is_asked_only_about_episodes_that_go_on",
            "the_tasks_follow_from_the_seed_alone",
            "each_action_goes_to_the_episode_of_its_observation",
            "a_rollout_tells_the_start_and_each_step_of_each_episode_up_to_its_end",
            "a_rollout_ends_where_a_time_limit_cuts_an_episode_off",
        ),
    ),
    Task(
        12,
        PREDICT,
        "how many updates",
        minutes=10,
        points=2,
        hint="A step that begins before the delay is over earns nothing, and all environments "
        "step at once.",
        tests=("updates",),
        module="tinyevo/train.py",
        after=(1, 2, 3, 6, 7, 10),
    ),
    Task(
        13,
        PREDICT,
        "how often the noise fires an engine",
        minutes=10,
        points=2,
        hint="When the walk has settled, a step adds as much variance as the pull takes away, and "
        "its values are normally distributed.",
        tests=("noise",),
        module="tinyevo/noise.py",
        after=(3,),
    ),
    Task(
        14,
        PREDICT,
        "the loss of two critics",
        minutes=15,
        points=2,
        hint="Two targets: one for transitions that terminated, one for the others. The two "
        "critics' losses are added.",
        tests=("loss",),
        module="tinyevo/td3.py",
        after=(6,),
    ),
    Task(
        15,
        PREDICT,
        "a whole number grows",
        minutes=10,
        points=2,
        hint="Read _moved. Python rounds 2.5 to 2.",
        tests=("growth",),
        module="tinyevo/mutation.py",
    ),
    Task(
        16,
        DERIVE,
        "who gets the places",
        minutes=45,
        points=4,
        hint="The elite's place is not fought for. In how many of the tournaments that can be "
        "drawn is the second best, but not the best?",
        tests=("best", "second"),
        module="tinyevo/tournament.py",
        after=(4,),
    ),
    Task(
        17,
        DERIVE,
        "until one founder is left",
        minutes=120,
        points=6,
        hint="Only the sizes of the families count: partitions of n. Give each its probability of "
        "leading to each other one, and solve the linear system for the mean times. A computer may "
        "sum for you; a simulation alone is worth half.",
        tests=("takeover",),
        module="tinyevo/tournament.py",
        after=(4,),
    ),
    Task(
        18,
        DERIVE,
        "what an uncertain future is worth",
        minutes=30,
        points=3,
        hint="Write the value as this step's reward and what comes after, times the chance that "
        "anything does.",
        tests=("worth",),
        module="tinyevo/td3.py",
        after=(6, 7),
    ),
    Task(
        19,
        DERIVE,
        "the winner's curse",
        minutes=45,
        points=3,
        hint="How large is the standard deviation of a fitness? The expected largest of n standard "
        "normal numbers is an integral, or a table.",
        tests=("curse",),
        module="tinyevo/train.py",
    ),
    Task(
        20,
        HUNT,
        "three bugs by their symptoms",
        minutes=180,
        points=9,
        hint="Look at the curve and the table first: what does not happen that should? Which "
        "function would have to be wrong for that? Only then read it.",
        tests=("first", "second", "third"),
        after=BODIES,
        text="Plant your three bugs, one at a time, name their places, and repair them.",
    ),
    Task(
        21,
        PLOT,
        "the noise and the dead zone",
        minutes=60,
        points=5,
        hint="One figure, three panels that share both axes. Shade where the engine is off. The "
        "tutorial's block counts shares and bursts; the actor's action is added to the noise.",
        module="tinyevo/noise.py",
        after=(3,),
        text="An actor says -0.4 for the main engine in every step. Draw 300 steps of its action "
        "with the Gaussian noise of sigma 0.1, with the script's Ornstein-Uhlenbeck noise, and "
        "with the one of sigma 0.1 and dt 0.01, and the dead zone of the main engine. Say in two "
        "sentences below it in which share of steps the engine burns with each, for how long in a "
        "row, and what this agent can and cannot learn from that.",
    ),
    Task(
        22,
        EXPLAIN,
        "read a run",
        minutes=60,
        points=5,
        hint="Start with one child whose fitness is far from its parent's, and ask what would "
        "have to be flown to know why. How far single episodes spread stands in no file: the run "
        "says it at its end of the best confirmed agent, elite.pt, which may be of an earlier "
        "generation. Load it as the tutorial does, and call evaluate with max_steps=200, which "
        "gives the return of each.",
        after=BODIES,
        text="Run `python train_lunar.py --quick --seed N` with a seed that you choose (day and "
        "month of your birthday, say; it cuts episodes at 200 steps, so do not expect a landing). "
        "On one page: follow the line of the last generation's elite back through history.csv; "
        "name one change of fitness that you can explain and one that you cannot, and say what "
        "would decide it; give the standard error of a fitness in your run (the standard deviation "
        "of single returns, over the root of the number of episodes that a fitness is the mean "
        "of), and a comparison in the table that is smaller.",
    ),
    Task(
        23,
        PROJECT,
        "does exploration decide?",
        minutes=480,
        points=15,
        hint="Write down before the first run what you count, how many seeds, and when you stop.",
        after=BODIES,
        text="Compare the script's noise with the often-copied one (expl_noise 0.1, noise_dt "
        "0.01; both are settings at the top of train_lunar.py) on at least five seeds each, "
        "300,000 steps of all members (--max-steps 75000, which counts those of one of the four), "
        "everything else alike; what does not land flies for long, so let them run overnight. "
        "Report every seed, the steps to a confirmed 200, and Fisher's exact test. With the "
        "settings of version 0.1.0, 5 of 5 landed against 0 of 5, with a median of 180,000 steps; "
        "with those of now the script's noise landed on all, with a median of 60,000. Then "
        "say what share of the effect is strength and what is memory, with a third arm that you "
        "choose.",
    ),
    Task(
        24,
        PROJECT,
        "when does selection pay?",
        minutes=480,
        points=15,
        hint="Write down before the first run what you count, how many seeds, and when you stop. "
        "Selection among noisy fitnesses is partly a lottery: which ratio of noise to real "
        "differences decides?",
        after=(4, 5),
        text="Take the toy of the two climbers from the tutorial; in larger populations the "
        "founders have (1, 0) and (0, 1) in turn. Add normal noise to the fitness that selection "
        "sees (never to the one you report), and find the noise from which selection no longer "
        "beats mutation alone, for populations of 2, 4 and 10, with at least 50 seeds and error "
        "bars. Expected without noise, for the toy as it is (seed 0): 0.39 with neither, 1.17 with "
        "mutation alone and 1.20 with both.",
    ),
)
REFILLS = tuple(task for task in TASKS if task.kind == REFILL)
