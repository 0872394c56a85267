"""Read and decode the files of tasks, as a Beam transform."""

import apache_beam as beam

from batch_inference.concurrent_map import ConcurrentMap, PoolSize
from batch_inference.inputs import study_key
from batch_inference.inputs.body_parts import CheckBodyPart, list_terms
from batch_inference.inputs.decode import Decode
from batch_inference.options import Options
from batch_inference.outputs import grouping, journal
from batch_inference.outputs.records import Example, Rejection
from trainer.artifact import Artifact
from trainer.workers.file_results import Wanted


class DecodeTasks(beam.PTransform):
    """Decodes tasks to examples; returns rejections and entries scored earlier beside them."""

    def __init__(self, options: Options, described: Artifact, pool: PoolSize):
        """Take the options, the model's artifact, and how many files are read at once."""
        super().__init__()
        self._decode = Decode(
            Wanted(described.image_size, options.cam != "none", bool(options.dicom)),
            described.model_id,
            study_key.make_study_key(options.study_key, options.id_salt, options.input),
            options.frames == "all",
        )
        refuse = options.other_body_parts == "reject"
        self._check = CheckBodyPart(list_terms(described), described.model_id, refuse)
        self._pool = pool

    def expand(self, tasks: beam.PCollection) -> tuple[beam.PCollection, ...]:
        return (
            tasks
            | "Read and decode" >> beam.ParDo(ConcurrentMap(self._decode, self._pool))
            | "Check body part" >> beam.Map(self._check)
            | "Split" >> grouping.split_by_type(Example, Rejection, journal.Entry)
        )
