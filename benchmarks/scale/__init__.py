"""How time, memory and files grow with a bank of up to 1000 models x 100 cases."""
