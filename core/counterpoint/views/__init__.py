"""View generators that know no modality."""
