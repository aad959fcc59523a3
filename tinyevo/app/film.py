"""The film of an evolution: the members of some generations fly from one start, as ghosts over each
other, the elite in front.

Which generations it shows is up to scenes.py. It needs matplotlib for captions. An agent here is
anything with `get_action(batch of observations)`.

Mirrors the tutorial's section "Saving test episodes as a GIF".
"""

import io
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from itertools import chain, islice, zip_longest

import imageio.v3 as imageio
import numpy as np

from tinyevo.app.plots import blank_figure
from tinyevo.environment import make_env
from tinyevo.evaluate import episode_seeds, rollout
from tinyevo.render import STRIDE, check_same_size, picture

STARTS = 3  # the film shows that one of them which suits the last elite best
SAMPLE = 40  # steps between the pictures of which the background is made
FRAMES = 160  # of the whole film, at most (two for each of very many scenes)
FRAME_TIME = 90  # milliseconds
PAUSE = 700  # milliseconds more for the last frame of a scene
GHOST = 0.5  # opacity of all members but the elite
GREY, BLUE = (225, 225, 225), (0, 114, 178)  # of the bars


def film_evolution(folder, env_id, seed=0, max_steps=None):
    """Film the scenes of a `RunFolder` into its `evolution.gif`.

    With imageio's ffmpeg plugin also into `evolution.mp4`. The other arguments are as in
    `record_evolution`.
    """
    with folder.new_file("evolution.gif") as gif:
        record_evolution(folder.film(), env_id, gif, seed, max_steps)
    if gif.getvalue() and find_spec("imageio_ffmpeg"):
        with folder.new_file("evolution.mp4") as file:
            write_mp4(gif.getvalue(), file)


def write_mp4(gif, path):
    """Write the bytes of a film of `record_evolution` as an MP4, which plays as long.

    Raises ImportError if ffmpeg cannot do it.
    """
    frames = []
    with imageio.imopen(gif, "r", plugin="pillow") as film:
        for index, frame in enumerate(film.iter()):
            time = film.metadata(index=index)["duration"]
            height, width = (side // 2 * 2 for side in frame.shape[:2])  # both must be even
            frames += [frame[:height, :width]] * round(time / FRAME_TIME)
    form = {"extension": ".mp4", "plugin": "FFMPEG", "macro_block_size": 2}
    try:
        imageio.imwrite(path, frames, fps=1000 / FRAME_TIME, **form)
    except (OSError, RuntimeError) as error:
        raise ImportError(f"imageio's ffmpeg does not work: {error}") from error


def record_evolution(scenes, env_id, path, seed=0, max_steps=None):
    """Film scenes of an evolution into a GIF.

    Each of `scenes` is (caption, agents), with the generation's elite as the first agent; it ends
    with the elite's flight, or when it has had its share of the film. All begin at one start: of
    some that follow from `seed`, the one on which the last elite does best. Bars show the elite's
    action. `path` and `max_steps` are as in `record_gif`, which says what is raised;
    ImportError if matplotlib is missing.
    """
    first, last = scenes[0][1][0], scenes[-1][1][0]
    with ExitStack() as stack:
        most = max(len(agents) for _, agents in scenes)
        envs = [
            stack.enter_context(make_env(env_id, max_steps, render_mode="rgb_array"))
            for _ in range(most)
        ]
        env = envs[-1]  # for who flies alone

        # Choose the start, and a speed at which the last elite's flight is seen to its end.
        rewards = {}
        for start in episode_seeds(seed, STARTS):
            rewards[start] = [reward for _, reward, *_ in rollout(last, [env], [start])]
        start = max(rewards, key=lambda start: sum(rewards[start]))
        frames = max(2, FRAMES // len(scenes))
        stride = max(STRIDE, -(-len(rewards[start]) // (frames - 1)))  # one frame is for its end

        # What stands still has the same place in most pictures of two flights.
        flights = chain(*(flight(agent, env, start, SAMPLE) for agent in (first, last)))
        pictures = [shown for shown, _ in flights]
        check_same_size(env_id, pictures)
        background = np.median(pictures, axis=0).astype(np.uint8)

        film = imageio.imopen(path, "w", extension=".gif", plugin="pillow")
        stack.enter_context(film)
        durations = []  # of all frames, which are read when the film is closed
        form = {"bits": 8, "duration": durations, "loop": 0}
        for caption, agents in scenes:
            strip = draw_caption(caption, background.shape[1])
            flights = [flight(*pair, start, stride) for pair in zip(agents, envs)]
            for shown, action in islice(together(flights, background), frames):
                check_same_size(env_id, [background, *shown])
                bars = draw_bars(strip, action, env.action_space)
                frame = np.concatenate([overlay(background, shown), bars])
                durations.append(FRAME_TIME)
                film.write(frame, **form)
            durations.append(PAUSE)
            film.write(frame, **form)  # becomes one with the last one, which so stands still


class Watched:
    """An agent that remembers its last action."""

    def __init__(self, agent):
        self.agent = agent

    def get_action(self, obs):
        """The agent's action, for one observation in a batch."""
        self.action = self.agent.get_action(obs)[0]
        return [self.action]


def flight(agent, env, start, stride):
    """Fly; yields (picture, action) after the first step, each `stride` steps later, at the end."""
    watched = Watched(agent)
    with suppress(FloatingPointError):  # a policy that diverged goes no further
        steps = islice(rollout(watched, [env], [start]), 1, None)
        for step, (_, _, terminated, truncated) in enumerate(steps):
            if step % stride == 0 or terminated or truncated:
                yield picture(env), watched.action


def together(flights, background):
    """Yields (pictures, action of the first) until the first flight, the elite's, has ended.

    Of another one that has ended its last picture stays, or the background if it has none.
    """
    shown = [background] * len(flights)
    for moment in zip_longest(*flights, fillvalue=(None, None)):
        now, action = moment[0]
        if now is None:
            return
        shown = [old if new is None else new for old, (new, _) in zip(shown, moment)]
        yield shown, action


def overlay(background, pictures):
    """What moves in all pictures in one: in the first one solid, in the others as ghosts."""
    moves = sum(ghost - background.astype(np.float32) for ghost in pictures[1:])
    frame = np.clip(background + GHOST * moves, 0, 255).astype(np.uint8)
    front = (pictures[0] != background).any(axis=2)
    frame[front] = pictures[0][front]
    return frame


def draw_caption(text, width):
    """A strip with a scene's caption, and room for the bars: (height, width, 3) uint8."""
    scale = max(width, 300) / 600
    file = io.BytesIO()
    with blank_figure(width / 100, scale) as figure:
        figure.text(0.02, 0.5, text, size=13 * scale, va="center", linespacing=1.8)
        figure.savefig(file, dpi=100)
    return imageio.imread(file)[..., :3]


def draw_bars(strip, action, box):
    """The strip with a bar for each component of an action, from its middle to either side."""
    strip = strip.copy()
    strip[:2] = 0
    width = strip.shape[1]
    track = strip[:, width * 3 // 4 : width * 97 // 100]
    size = box.high - box.low
    shares = (action - box.low) / np.where(size > 0, size, 1)
    for rows, share in zip(np.array_split(track, len(shares)), shares):
        bar = rows[len(rows) // 4 : -1 - len(rows) // 4]
        bar[:] = GREY
        ends = sorted([bar.shape[1] // 2, round(share * bar.shape[1])])
        bar[:, slice(*ends)] = BLUE
    return strip
