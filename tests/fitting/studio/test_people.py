"""People: the same by seed and number, different otherwise, and labelled where they should be."""

import numpy as np

from fitting.studio.family import HeadFamily
from fitting.studio.people import PICTURED, face_labels, person
from fitting.studio.truth import LABELS


def test_a_person_is_told_by_seed_and_number() -> None:
    person.cache_clear()
    first = person(1)
    person.cache_clear()
    again = person(1)
    np.testing.assert_array_equal(first.identity, again.identity)
    assert first.speaker == again.speaker
    assert (first.surface.albedo == again.surface.albedo).all()
    for other in (person(2), person(1, seed=1)):
        assert not np.allclose(first.identity, other.identity)
        assert first.speaker != other.speaker
        assert (first.surface.albedo - other.surface.albedo).abs().mean() > 0.01


def test_a_texture_is_a_share_of_light() -> None:
    albedo = person(0).surface.albedo
    assert albedo.min() >= 0
    assert albedo.max() <= 1
    assert 0.03 < albedo.mean() < 0.7


def test_every_label_is_where_it_belongs() -> None:
    family = HeadFamily(PICTURED)
    labels = face_labels(family)
    assert set(np.unique(labels)) == set(range(1, len(LABELS)))
    centres = family.mesh.rest[family.mesh.faces].mean(axis=1)
    named = {name: centres[labels == index] for index, name in enumerate(LABELS) if index}
    mouth, eyes = family.mesh.rest[family.mesh.landmarks[48:68]].mean(axis=0), family.mesh.rest[family.mesh.landmarks[36:48]]
    assert np.linalg.norm(named["lips"] - mouth, axis=1).max() < 0.035
    assert np.linalg.norm(named["lips"].mean(axis=0) - mouth) < 0.006
    assert named["hair"][:, 1].min() > -0.08
    assert named["hair"][:, 1].max() > 0.1
    assert named["mouth"][:, 2].mean() < mouth[2]
    assert np.abs(np.abs(named["eyes"][:, 0]).mean() - np.abs(eyes[:, 0]).mean()) < 0.003
