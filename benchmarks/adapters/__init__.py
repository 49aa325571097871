"""Do entries made from nnU-Net's folders see what nnU-Net's networks see?"""
