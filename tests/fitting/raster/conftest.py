import pytest

from fitting.raster import Backend, pytorch3d_backend


@pytest.fixture(params=["torch", "pytorch3d"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Both ways of finding what is visible: whoever asks for this is tested with each."""
    if request.param == "pytorch3d" and not pytorch3d_backend.available():
        pytest.skip("PyTorch3D is not installed")
    return request.param
