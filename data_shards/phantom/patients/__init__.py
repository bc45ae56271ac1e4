"""Who the patients are: types of glioma, markers, imaging traits, genes, and what they tell."""
