"""KServe's Python transformer with nothing to transform: it reads the request, and asks the predictor."""

import os

from kserve import Model, ModelServer
from kserve.predictor_config import PredictorConfig

if __name__ == "__main__":
    predictor = PredictorConfig(os.environ["BENCH_UPSTREAM"].removeprefix("http://"), "v2")
    server = ModelServer(
        http_port=int(os.environ["BENCH_PORT"]), enable_grpc=False, predictor_config=predictor
    )
    transformer = Model(os.environ["BENCH_MODEL"])
    transformer.ready = True
    server.start([transformer])
