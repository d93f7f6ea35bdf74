"""The paper's experiment as a pipeline of cached stages, from a folder of data to Table 1 and Figures 1 to 7.

Medina-Rosales, Cabrera-Vives & Miller, MNRAS, arXiv:2308.11007.
"""
