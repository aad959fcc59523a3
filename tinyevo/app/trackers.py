"""Trackers: a second record of a run, in Weights & Biases or TensorBoard, for those who ask for it.

A tracker gets the settings; after each generation the fitness of its elite (`fitness`), the mean
return of the best confirmed agent (`confirmed`), and of each member its fitness and every
hyper-parameter that evolution searches (`lr_actor/13`); at the end the pictures and the films. All
numbers stand over the environment steps of a member. (A run that is killed while it saves a
generation may lack it here; its `history.csv` has it.)

The 13 is the id of an agent, which it keeps for life, wherever it stands in the population. A child
has an id of its own, and its lines begin where its parent was, so that a lineage is read from line
to line.

Mirrors the tutorial's section "Reading a run".
"""

import json
import secrets

from tinyevo import checkpoint


class WandB:
    """A run of Weights & Biases. Its id is kept in the folder, so that a resumed run goes on in it.

    With WANDB_MODE=offline it stays there too, until `wandb sync` sends it.
    """

    run = None  # until it begins

    def begin(self, folder, settings, steps):
        """Begin the record of the run in a folder, or go on with it after so many steps."""
        import wandb

        file = folder / "wandb.id"
        if not file.exists():
            checkpoint.write(file, secrets.token_hex(4).encode())
        place = {"dir": folder, "id": file.read_text(), "resume": "allow"}
        self.run = wandb.init(config=json.loads(settings.to_json()), **place)
        self.run.define_metric("*", step_metric="steps")
        self.kinds = {".png": wandb.Image, ".gif": wandb.Video}

    def add(self, steps, values):
        """Add values, by name, at a number of steps."""
        self.run.log({"steps": steps, **values})

    def add_file(self, path):
        """Add a picture or a film."""
        self.run.log({path.stem: self.kinds[path.suffix](str(path))})

    def close(self):
        """End the record, if it has begun."""
        if self.run:
            self.run.finish()


class TensorBoard:
    """Event files in the folder `tensorboard` of the run's. A resumed run adds one, after which
    whatever the others hold of later steps no longer counts.
    """

    writer = None  # until it begins

    def begin(self, folder, settings, steps):
        """Begin the record of the run in a folder, or go on with it after so many steps."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(folder / "tensorboard", purge_step=steps + 1)
        self.writer.add_text("settings", f"```\n{settings.to_json()}```")

    def add(self, steps, values):
        """Add values, by name, at a number of steps."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, steps)
        self.writer.flush()

    def add_file(self, path):
        """Add a picture or a film: a browser shows the bytes of a GIF as the film that it is."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        image = Summary.Image(encoded_image_string=path.read_bytes())
        value = Summary.Value(tag=path.stem, image=image)
        self.writer.file_writer.add_summary(Summary(value=[value]))

    def close(self):
        """End the record, if it has begun."""
        if self.writer:
            self.writer.close()


TRACKERS = {"wandb": WandB, "tensorboard": TensorBoard}


def record(tracker, run, names):
    """Tell a tracker of a run's last generation, with the hyper-parameters of these names."""
    size = len(run.population)
    rows, earlier = run.history[-size:], run.history[-2 * size : -size]
    before = {row["id"]: row for row in earlier}
    for row in rows:
        line = [row]
        if before and row["id"] not in before:  # a child
            line.insert(0, before[row["parent_id"]])
        for point in line:
            values = {f"{name}/{row['id']}": point[name] for name in ("fitness", *names)}
            tracker.add(point["steps"], values)
    elite = next(row for row in rows if row["elite"])
    tracker.add(run.steps, {"fitness": elite["fitness"], "confirmed": run.best_return})
