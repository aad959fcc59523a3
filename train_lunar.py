"""Evolve a population of TD3 agents until one of them lands: `python train_lunar.py`.

First every setting, but those of agents that see pictures, with its reason; then the program, from
the first generation to the film. `python train_lunar.py --help` shows the flags that change one.
"""

from dataclasses import replace

from tinyevo.app.cli import run_program
from tinyevo.app.film import film_evolution
from tinyevo.app.plots import PICTURES, plot_evolution
from tinyevo.app.report import show_film, show_generation, show_score, show_settings, write_report
from tinyevo.app.runs import NetworkSettings, Settings
from tinyevo.app.workers import side_by_side
from tinyevo.buffer import ReplayBuffer
from tinyevo.environment import find_spaces
from tinyevo.evaluate import evaluate
from tinyevo.mutation import Mutations, RLParameter
from tinyevo.population import create_population
from tinyevo.render import record_gif
from tinyevo.td3 import HyperParams
from tinyevo.tournament import TournamentSelection
from tinyevo.train import RENDER, SCORE, Run, TrainConfig, train

SETTINGS = Settings(
    config=TrainConfig(
        env_id="LunarLanderContinuous-v3",
        seed=0,
        num_envs=4,
        max_steps=1_000_000,
        evo_steps=2_500,  # 625 in each environment; a landing takes 200 to 400
        learning_delay=0,
        updates_for="everybody",  # SEARL's rule: fewer steps, four times the updates for each
        draw_hp=False,  # True: each founder draws its own from `hp_space` below
        memory_size=100_000,  # ten generations of everybody: members learn from each other
        noise="ou",
        noise_mean=0.0,
        noise_theta=0.15,
        noise_dt=1.0,  # with dt 0.01 the noise needs hundreds of steps to build up
        train_episode_steps=600,  # of 1,000: an agent that only hovers is cut off sooner
        eval_episodes=10,
        eval_steps=None,
        confirm_episodes=100,
        target=200.0,
    ),
    network=NetworkSettings(
        hidden_size=(128, 128),  # with 64x64 it hovered for longer in first trials
        activation="relu",
    ),
    hp=HyperParams(
        lr_actor=5e-4,  # between AgileRL's 1e-4 and the TD3 paper's 1e-3
        lr_critic=1e-3,
        batch_size=256,  # AgileRL: 128; on two seeds it made no clear difference
        learn_step=2,  # of everybody: with four members, two updates for each of one's own steps
        gamma=0.99,
        reward_scale=0.1,  # an untrained critic outputs about 0, far from returns of +-200
        tau=0.01,  # twice the usual 0.005; since version 0.1.0, which made a quarter of the updates
        policy_freq=2,
        policy_noise=0.2,
        noise_clip=0.5,
        expl_noise=0.3,  # with the often-copied 0.1 and dt 0.01 no seed came near a landing
    ),
    tournament=TournamentSelection(tournament_size=2, elitism=True, population_size=4, judged_by=1),
    mutations=Mutations(
        no_mutation=0.4,
        architecture=0.2,
        new_layer_prob=0.2,
        parameters=0.2,
        activation=0.0,  # 0.2 cost each of 15 children its skill; try it
        rl_hp=0.2,
        restart=0.0,  # newcomers: for founders that draw, see settings/unknown.json
        mutation_sd=0.1,
        mutated_share=0.1,
        super_prob=0.05,
        super_sd=10.0,
        reset_prob=0.05,
        layer_bounds=(1, 3),
        node_bounds=(16, 256),
        node_steps=(16, 32, 64),
        activations=("relu", "elu", "gelu", "tanh"),
        mutate_elite=False,
        hp_space={
            "lr_actor": RLParameter(min=1e-4, max=1e-2),
            "lr_critic": RLParameter(min=1e-4, max=1e-2),
            "batch_size": RLParameter(min=8, max=512, dtype=int),
            "learn_step": RLParameter(min=1, max=16, dtype=int),
        },
    ),
)
# `--quick` is the whole pipeline within a minute: it learns and mutates, but does not land.
QUICK = replace(
    SETTINGS,
    config=replace(
        SETTINGS.config,
        max_steps=2_400,
        evo_steps=800,
        updates_for="own",
        memory_size=10_000,  # images of 96 x 96 take half a gigabyte
        train_episode_steps=200,
        eval_steps=200,
        confirm_episodes=20,
    ),
    hp=replace(SETTINGS.hp, batch_size=32),
)


def main(options):
    """Evolve a population, and show its best agent."""
    settings, config, folder = options.settings, options.settings.config, options.folder

    # Make the first generation of a run, unless one is resumed.
    run = options.resumed
    if run is None:
        spaces = find_spaces(config.env_id)
        population = create_population(
            settings.tournament.population_size,
            *spaces,
            settings.hp,
            seed=config.seed,
            drawn_from=settings.mutations.hp_space if config.draw_hp else None,
            device=options.device,
            **vars(settings.network),
        )
        run = Run(population, ReplayBuffer(config.memory_size, *spaces, options.device))
    folder.save(run, settings)
    show_settings(run, options)

    # Train it. After each generation the whole run is saved, and its members are shown.
    with side_by_side(options.workers, run, config) as workers:

        def on_generation(run):
            folder.save(run, settings)
            show_generation(run, workers.bar)

        run = train(
            run,
            settings.tournament,
            settings.mutations,
            config,
            map=workers.map,
            on_steps=workers.on_steps,
            on_generation=on_generation,
        )

    # Score the best agent on fresh episodes, which played no part in selecting it.
    seed = config.derived_seed(SCORE)
    returns = evaluate(run.best, config.env_id, config.confirm_episodes, seed, config.eval_steps)
    show_score(run, config, seed, returns)

    # Draw what evolution found, and film the best agent and the evolution.
    for picture in PICTURES:
        with folder.new_file(f"{picture}.png") as file:
            plot_evolution(run.history, file, picture, settings.mutations.hp_space)
    if options.film:
        seed, steps = config.derived_seed(RENDER), config.eval_steps
        with folder.new_file("lander.gif") as file:
            show_film(record_gif(run.best, config.env_id, file, 7, seed, steps))
        film_evolution(folder, config.env_id, seed, steps)
    with folder.new_file("report.html") as file:
        write_report(run.history, folder.files(), file)
    print("wrote", *folder.files())


if __name__ == "__main__":
    run_program(main, SETTINGS, QUICK)
