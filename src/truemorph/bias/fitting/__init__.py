"""Methods of estimating T(α): one file each."""
