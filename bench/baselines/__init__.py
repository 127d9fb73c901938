"""What Signgate is measured against: each as good as it can be made, none crippled."""
